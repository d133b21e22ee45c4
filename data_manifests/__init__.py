"""What is known of each data set that `r2reg data prepare` reads: one JSON file each."""
