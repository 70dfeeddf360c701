"""What schemathesis is to look at besides its own checks; it loads this file by SCHEMATHESIS_HOOKS."""

import schemathesis

# What control says where a worker had no core for longer than it waits: on a busy machine that is no fault.
SILENT = ("did not answer within", "commands waiting: try again")


@schemathesis.check
def unavailable_is_a_silent_worker(_ctx, response, _case):
    """503 comes of a worker that is silent, and of nothing else."""
    if response.status_code == 503 and not any(sentence in response.text for sentence in SILENT):
        raise AssertionError(f"503 says of no worker that it is silent: {response.text}")
