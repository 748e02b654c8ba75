"""The Triton model repository as package data; Triton itself reads the folders only."""
