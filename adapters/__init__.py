"""Adapt a chat to a family: which weights, which prompt, which stops. The extension API."""
