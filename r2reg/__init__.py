"""r2reg: diffeomorphic registration of medical images with residual networks."""

__version__ = "0.1.0"
