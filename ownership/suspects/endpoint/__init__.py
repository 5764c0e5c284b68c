"""HTTP endpoints as suspects, and the transcript of their answers. May import: errors, io, encoders, suspect."""
