"""Which of the paper's tables and findings hold here? Tables 1 to 4, 6 to 18 and Figure 2, cell by cell."""
