"""From images to descriptors: pyramid, selection, extraction and the feature store."""
