"""The legacy GGML files of GPT-J (gpt4all-j), and GGUF files made of them."""
