"""The front page's film: the slider of the first explorer, moved. `python tests/film.py` writes data/pictures/explore.png, an animated PNG; Debian's chromium does the looking."""
import io, shutil, sys
from pathlib import Path
from PIL import Image
from playwright.sync_api import sync_playwright
from started import started

ROOT = Path(__file__).resolve().parents[1]
EXPLORE = [sys.executable, '-c', 'from sshpe.cli import main; raise SystemExit(main())', 'explore', '--no-browser']
SIZE, COLOURS = (820, 489), 96

def frames(n=30, pause=900):
    "The page after each of `n` steps of τ."
    with started(EXPLORE) as p, sync_playwright() as play:
        page = play.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu']).new_page(viewport=dict(width=1240, height=740))
        page.set_default_timeout(120_000)
        page.goto(p.stdout.readline().strip())
        page.locator('a#heatmaps').click(); page.wait_for_selector('.sshpe-stage canvas'); page.wait_for_timeout(6000)
        for _ in range(n):
            yield Image.open(io.BytesIO(page.screenshot())).convert('RGB').resize(SIZE, Image.LANCZOS)
            page.keyboard.press('+'); page.wait_for_timeout(pause)

def film(shots):
    "There, a moment at the end, and faster back."
    there = shots[::3]+[shots[-1]]*3+shots[::-6]
    palette = there[0].quantize(COLOURS, dither=Image.Dither.NONE)
    return [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in there]

if __name__ == '__main__':
    first, *more = film(list(frames()))
    first.save(ROOT/'data/pictures/explore.png', save_all=True, append_images=more, duration=[900]+[260]*len(more), loop=0, optimize=True)
