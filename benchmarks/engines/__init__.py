"""How fast engines are: our server, and others under the same load in the same run."""
