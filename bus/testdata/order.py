"""order.py PUBLISHERS SUBSCRIBERS MESSAGES: all arrive, in order, to the byte."""

import hashlib
import sys
import threading

from peers import END, join, pub, receive, say, sub

messages = int(sys.argv[3])
sizes = [0, 1, 33, 34, 246, 247, 1000]

publisher = pub(sys.argv[1])
subscribers = [sub(sys.argv[2], b"") for _ in range(2)]
join(publisher, *subscribers)
results = []


def collect(subscriber):
    digest, count = hashlib.sha256(), 0
    for (body,) in receive(subscriber):
        digest.update(body)
        count += 1
    results.append((count, digest.hexdigest()))


threads = [threading.Thread(target=collect, args=(s,)) for s in subscribers]
for t in threads:
    t.start()
digest = hashlib.sha256()
for n in range(messages):
    body = b"%09d" % n + b"x" * sizes[n % len(sizes)]
    digest.update(body)
    publisher.send(body)
publisher.send(END)
for t in threads:
    t.join()
say(ok=[r == (messages, digest.hexdigest()) for r in results], counts=[r[0] for r in results])
