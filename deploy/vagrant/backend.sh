#!/bin/sh
# Makes this machine a backend: nginx with one page, the machine's name.
set -eu

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends nginx
hostname >/var/www/html/index.html
systemctl enable nginx
systemctl restart nginx
