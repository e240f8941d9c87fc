"""Run tokens: a prompt in, events out. Knows nothing of HTTP or of model families."""
