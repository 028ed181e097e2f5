#!/bin/sh
# Makes this machine a balancer: balancer.sh UPLOADS JOIN ADVERTISE [NAME=URL]...
#
# UPLOADS is the directory with lbnode, secret and lbnode.service in it. Each
# NAME=URL is a backend to add once the cluster has formed. May be run again.
set -eu

uploads=$1
join=$2
advertise=$3
shift 3

fail() {
	echo "balancer.sh: $*" >&2
	exit 1
}

install_files() {
	[ -f "$uploads/lbnode" ] || fail "there is no lbnode to install; build it on the host, beside the Vagrantfile:
  CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -o lbnode ./cmd/lbnode
then: vagrant provision"
	chmod 755 "$uploads/lbnode"
	"$uploads/lbnode" version || fail "the uploaded lbnode does not run on $(uname -sm)"
	id -u lbnode >/dev/null 2>&1 ||
		useradd --system --user-group --no-create-home --home-dir /var/lib/lbnode --shell /usr/sbin/nologin lbnode
	install -D -m 755 "$uploads/lbnode" /usr/bin/lbnode
	install -D -m 644 "$uploads/lbnode.service" /etc/systemd/system/lbnode.service
	install -D -m 640 -o root -g lbnode "$uploads/secret" /etc/lbnode/secret
	rm -rf "$uploads"
}

# The first network card has the same address on every machine, so the address
# to advertise is given, not found.
write_settings() {
	cat >/etc/lbnode/lbnode.env <<-END
		LBNODE_JOIN=$join
		LBNODE_ADVERTISE=$advertise
		LBNODE_SECRET=/etc/lbnode/secret
	END
}

start() {
	systemctl daemon-reload
	systemctl enable lbnode
	systemctl restart lbnode
}

# add_backend tries until the other balancers are up and the cluster has a
# leader. A backend that is there already is fine.
add_backend() {
	deadline=$(($(date +%s) + 300))
	until answer=$(lbnode backend add "$1" "$2" 2>&1); do
		if lbnode backend ls -o json 2>/dev/null | grep -q "\"$1\""; then
			return
		fi
		[ "$(date +%s)" -lt "$deadline" ] || fail "cannot add backend $1: $answer"
		sleep 2
	done
}

# show_status gives the backends time for their first probes. That one fails them
# is no failure of this machine.
show_status() {
	tries=0
	until lbnode status >/dev/null 2>&1 || [ "$tries" -ge 30 ]; do
		tries=$((tries + 1))
		sleep 1
	done
	lbnode status || true
}

install_files
write_settings
start
for backend; do
	add_backend "${backend%%=*}" "${backend#*=}"
done
if [ $# -gt 0 ]; then
	show_status
fi
