"""The network: backbone, pooling, attention and autoencoder, joined in one model."""
