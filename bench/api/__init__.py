"""What `import bench` offers; see `bench.__all__`. Nothing here changes the process for good."""
