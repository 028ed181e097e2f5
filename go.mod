module lbnode

go 1.26

require (
	github.com/hashicorp/memberlist v0.7.0
	github.com/hashicorp/raft v1.8.0
	github.com/hashicorp/raft-autopilot v0.3.0
	github.com/hashicorp/raft-boltdb/v2 v2.3.1
	go.etcd.io/bbolt v1.5.0
)

replace github.com/hashicorp/go-metrics => github.com/hashicorp/go-metrics v0.6.1
