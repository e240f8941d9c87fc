"""What engines that decode tokens themselves share: prompts, stops, text, log-probabilities."""
