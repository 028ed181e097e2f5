"""Fetches paths of one server over one connection and prints the SHA-256 of each."""
import hashlib
import http.client
import sys

connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
for path in sys.argv[2:]:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        sys.exit(f"{path}: {answer.status}")
    print(hashlib.sha256(body).hexdigest())
