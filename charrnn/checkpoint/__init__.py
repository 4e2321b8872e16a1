"""What a run keeps on disk: format, atomic files, finding, reading, initializing from another."""
