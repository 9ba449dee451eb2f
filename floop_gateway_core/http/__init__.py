"""One HTTP exchange, independent of any framework: reading the body and writing the reply."""
