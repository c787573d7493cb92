"""Apache Beam pipelines: raw audio in, a published dataset out."""
