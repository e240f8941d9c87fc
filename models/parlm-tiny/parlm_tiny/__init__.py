"""How parlm-tiny is made: data generators, tokenizer, model, training, export, evaluation."""
