"""Serve a chat over HTTP: OpenAI's wire format outside, domain types inside."""
