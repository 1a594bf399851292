import csv

from PIL import Image

from videomac.train.plots import loss_curves


def test_the_loss_curves_are_drawn_from_the_csv(tmp_path):
    keys = ("step", "loss", "online_loss", "target_loss", "consistency_loss", "learning_rate", "held_out_loss")
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(keys)
        writer.writerows(
            [step, 2 - step / 100, 1, 1, 0.1, 1e-3, 0.9 if step % 10 == 0 else ""] for step in range(1, 41)
        )
    loss_curves(tmp_path / "metrics.csv", tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as image:
        assert image.size == (960, 720)
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20)}
    for color in ((0, 0, 0), (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)):
        assert color in colors, "four losses, held-out loss, learning rate"
