"""Fine-tune a quantized network: `python quant_train.py --quant-scheme bops0.5` is `hawq train`."""

import typer

from hawq.cli.main import run
from hawq.cli.train import train

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command()(train)
    run(app)
