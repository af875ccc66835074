"""flood.py PUBLISHERS ID: publishes numbered messages of many frames until it is killed."""

import sys

import zmq

from peers import pub

publisher = pub(sys.argv[1], kind=zmq.XPUB)
publisher.recv()  # the relay's subscription
n = 0
while True:
    publisher.send_multipart([b"flood", sys.argv[2].encode(), b"%d" % n] + [b"x" * 1000] * 100 + [b"last"])
    n += 1
