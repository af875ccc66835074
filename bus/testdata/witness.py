"""witness.py PUBLISHERS SUBSCRIBERS: checks what flood.py publishes until a line comes on the standard input."""

import sys
import threading

from peers import END, SYNC, join, pub, say, sub

control = pub(sys.argv[1])
subscriber = sub(sys.argv[2], b"flood")
join(control, subscriber)
say(ready=True)


def stop():
    sys.stdin.readline()
    control.send(END)


threading.Thread(target=stop).start()
next_of, whole, wrong = {}, 0, []
while True:
    m = subscriber.recv_multipart()
    if m == [END]:
        break
    if m == [SYNC]:
        continue
    ok = len(m) == 104 and m[-1] == b"last" and all(len(f) == 1000 for f in m[3:-1])
    ok = ok and next_of.get(m[1], 0) == int(m[2])
    next_of[m[1]] = int(m[2]) + 1
    whole += ok
    if not ok:
        wrong.append("%d frames, publisher %r, number %r" % (len(m), m[1], m[2]))
say(publishers=len(next_of), whole=whole, wrong=wrong[:10])
