"""Images, transform files, points and tables on disk. File conventions live here and nowhere else."""
