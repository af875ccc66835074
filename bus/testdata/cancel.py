"""cancel.py PUBLISHERS SUBSCRIBERS: a subscription is over when the application says so, on SUB and XSUB, with an XPUB as publisher.

For a prefix subscribed to twice and cancelled twice libzmq sends two SUBSCRIBEs and one CANCEL.
"""

import sys

import zmq

from peers import END, MARK, SYNC, context, join, options, pub, receive, say, sub

publisher = pub(sys.argv[1], kind=zmq.XPUB)
first = sub(sys.argv[2], b"A", b"A", b"B")
second = options(context.socket(zmq.XSUB), {"RCVHWM": 0})
second.connect(sys.argv[2])
for frame in (b"\x01A", b"\x01A", b"\x01B", b"\x01" + MARK):
    second.send(frame)
join(publisher, first, second)


def round():
    for topic in (b"A1", b"B1", b"C1"):
        publisher.send(topic)
    publisher.send(END)
    return ["".join(m[0][:1].decode() for m in receive(s)) for s in (first, second)]


before = round()
first.unsubscribe(b"A")
first.unsubscribe(b"A")
second.send(b"\x00A")
second.send(b"\x00A")
second.send(b"\x00never subscribed")
# What follows these on the same connections has been preceded by them.
first.subscribe(b"sync1")
second.send(b"\x01sync2")
for topic, subscriber in ((b"sync1", first), (b"sync2", second)):
    while not subscriber.poll(10):
        publisher.send(topic)
    while subscriber.poll(100):
        subscriber.recv()
after = round()
say(upstream=publisher.recv() == b"\x01", before=before, after=after)
