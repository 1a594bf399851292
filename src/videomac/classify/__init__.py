"""Image classification with a backbone: fine-tuning, linear probe, k-NN.

`finetune.py` and `probe.py` are the two commands; both read a folder of images with `images.py` and a backbone with
`network.py`.
"""
