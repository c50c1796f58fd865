"""One typed document in; pages, tables and pictures out."""
