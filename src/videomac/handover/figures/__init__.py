"""`videomac figures`: the paper's figures from runs, a video and evaluations, each as PNG, SVG and data."""
