"""Teachers: training, pools, storage, import and export."""
