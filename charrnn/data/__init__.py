"""Text files become windows of indices: files, charset, corpus and its cache, stream, datamodule."""
