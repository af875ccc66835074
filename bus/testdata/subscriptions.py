"""subscriptions.py PUBLISHERS SUBSCRIBERS COUNT: one subscriber with COUNT subscriptions gets a message for each."""

import sys

from peers import END, join, pub, receive, say, sub

count = int(sys.argv[3])
topics = [b"topic/%d/" % n for n in range(count)]
publisher = pub(sys.argv[1])
subscriber = sub(sys.argv[2], *topics)
join(publisher, subscriber)
for t in topics:
    publisher.send(t + b"message")
    publisher.send(b"other/" + t)
publisher.send(END)
got = [m[0] for m in receive(subscriber)]
say(got=len(got), right=got == [t + b"message" for t in topics])
