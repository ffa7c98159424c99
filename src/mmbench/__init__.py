"""mmbench: a benchmark suite for multimodal fusion, with complete and with missing modalities."""
