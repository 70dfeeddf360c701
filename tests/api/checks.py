"""What schemathesis does besides what it does by itself; it loads this file by SCHEMATHESIS_HOOKS."""

import functools

import requests
import schemathesis

# What control says where a worker had no core for longer than it waits: on a busy machine that is no fault.
SILENT = ("did not answer within", "commands waiting: try again")
# How often a request is made whose answer ends in the middle, as a listing does that such a worker interrupts.
TRIES = 5


@schemathesis.check
def unavailable_is_a_silent_worker(_ctx, response, _case):
    """503 comes of a worker that is silent, and of nothing else."""
    if response.status_code == 503 and not any(sentence in response.text for sentence in SILENT):
        raise AssertionError(f"503 says of no worker that it is silent: {response.text}")


def whole(ask):
    """As `ask`, again where the answer ends in the middle; one that always does is told."""

    @functools.wraps(ask)
    def asked(*words, **more):
        for left in reversed(range(TRIES)):
            answer = ask(*words, **more)
            try:
                answer.content  # noqa: B018
            except requests.exceptions.ChunkedEncodingError:
                if not left:
                    raise
            else:
                return answer

    return asked


requests.Session.request = whole(requests.Session.request)
