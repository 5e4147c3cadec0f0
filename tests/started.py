"Processes that a test starts: they hear Ctrl-C, whoever started the tests, and none outlives its test."
import os, signal, subprocess
from contextlib import contextmanager, suppress

def listens(): signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it is ignored, and children inherit that

@contextmanager
def started(words, **more):
    "A process with pipes of text; killed at the end, with its group, where it still runs."
    p = subprocess.Popen([*map(str, words)], text=True, start_new_session=True, preexec_fn=listens, **{'stdout': subprocess.PIPE, **more})
    try: yield p
    finally:
        with suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGKILL)
        p.wait()
