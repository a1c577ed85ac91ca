"""The model: networks of the modalities, encoder, decoder, and how they are put together."""
