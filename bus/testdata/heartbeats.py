"""heartbeats.py PUBLISHERS SUBSCRIBERS SECONDS: peers with impatient heartbeats stay connected while nothing is sent, and see none of them."""

import sys

import zmq
from zmq.utils.monitor import recv_monitor_message

from peers import END, join, pub, receive, say, sub

beat = {"HEARTBEAT_IVL": 200, "HEARTBEAT_TIMEOUT": 600, "HEARTBEAT_TTL": 600}
publisher = pub(sys.argv[1], **beat)
subscriber = sub(sys.argv[2], b"", **beat)
monitors = [s.get_monitor_socket(zmq.EVENT_DISCONNECTED) for s in (publisher, subscriber)]
join(publisher, subscriber)
while subscriber.poll(300):
    subscriber.recv()
received = 0
if subscriber.poll(int(float(sys.argv[3]) * 1000)):
    received = len(list(receive(subscriber, quiet=100)))
publisher.send(b"after")
publisher.send(END)
after = list(receive(subscriber)) == [[b"after"]]
lost = 0
for monitor in monitors:
    while monitor.poll(0):
        recv_monitor_message(monitor)
        lost += 1
say(received=received, lost=lost, after=after)
