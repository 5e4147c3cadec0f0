"Drawing helpers against matplotlib's own colours, torch's upsampling and pixel arithmetic."
import io
import matplotlib; matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sshpe.pose import draw as d
from sshpe.pose.heatmap import encode
from sshpe.pose.skeleton import COCO17
from sshpe.pose.views import MEAN, STD

img = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)

@pytest.fixture
def ax():
    fig, ax = plt.subplots(); yield ax; plt.close(fig)

def test_rgb_takes_every_layout():
    t = torch.tensor(img)
    n = (t.permute(2, 0, 1).float() - torch.tensor(MEAN)[:,None,None])/torch.tensor(STD)[:,None,None]
    for x in (img, img.transpose(2, 0, 1), t, t.permute(2, 0, 1), n, n.permute(1, 2, 0), n.double(), n.requires_grad_()):
        assert d.rgb(x).dtype == np.uint8 and (d.rgb(x) == img).all()
    assert abs(d.rgb(n.bfloat16()).astype(int) - img).max() <= 2
    assert (d.rgb(np.zeros((3, 4, 5), np.float32)) == np.round(MEAN)).all() and d.rgb(n*100).max() == 255

@given(arrays(np.float32, (5, 7), elements=st.floats(-3, 3, width=32)), st.sampled_from([d.HEAT, d.UNCERTAINTY, d.DIFFERENCE]),
       st.sampled_from([(0, 1), (-1, 1), (0, .3)]))
def test_colour_is_matplotlibs(x, cmap, v):
    ours = d.colour(x, cmap, *v).astype(int)
    theirs = plt.get_cmap(cmap)(plt.Normalize(*v)(x.astype(np.float64)), bytes=True)[...,:3].astype(int)
    x01 = (x.astype(np.float64)-v[0])/(v[1]-v[0])*256
    clear = abs(x01 - x01.round()) > 1e-3       # on a step between two colours rounding decides
    assert (ours == theirs)[clear].all()

def test_nan_is_nothing():
    h = np.full((6, 4), np.nan); assert (d.heat(img, h) == img).all()

@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
def test_grow_is_repeat(h, w, a, b):
    x = np.arange(h*w).reshape(h, w)
    assert (d.grow(x, (h*a, w*b)) == x.repeat(a, 0).repeat(b, 1)).all()

@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_grow_is_nearest(h, w, H, W):
    x = np.random.default_rng(0).random((h, w))
    want = torch.nn.functional.interpolate(torch.tensor(x)[None,None], (H, W), mode='nearest-exact')[0,0].numpy()
    assert d.grow(x, (H, W)).shape == want.shape and (d.grow(x, (H, W)) == want).mean() > .9   # ties may round either way

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 15), st.integers(0, 23), st.sampled_from([1, 2, 4]))
def test_a_peak_glows_on_its_joint(x, y, stride):
    h = encode(torch.tensor([[float(x), float(y)]]), (24//stride, 16//stride), stride, .6, exact=False)
    a = np.abs(d.heat(np.zeros_like(img), h, vmin=.99, vmax=1).astype(int)).sum(-1)
    ys, xs = np.nonzero(a == a.max())
    assert xs.min() <= x <= xs.max() and ys.min() <= y <= ys.max() and np.ptp(xs) == stride-1
    assert abs(xs.mean()-x) <= (stride-1)/2 and abs(ys.mean()-y) <= (stride-1)/2

def test_heat_mixes():
    h = np.zeros((2, 6, 4)); h[1,0,0] = 1; h[0,5,3] = .25
    a = d.heat(img, h, alpha=.8)
    top = np.array(plt.get_cmap(d.HEAT)(1., bytes=True)[:3])
    assert abs(a[:4,:4] - (.2*img[:4,:4] + .8*top)).max() <= 1 and (a[8:16] == img[8:16]).all()
    assert (a[20:,12:] != img[20:,12:]).any() and (d.heat(img, h, 1)[20:,12:] == img[20:,12:]).all()
    assert (d.heat(img, h, 'max') == a).all() and (d.heat(img, h[1]) == d.heat(img, h, 1)).all()
    assert (d.heat(img, torch.tensor(h), alpha=0) == img).all()

def test_panels_align(ax):
    d.heat_panel(ax, np.zeros((6, 4)), (24, 16), img)
    picture, heat = ax.images
    assert tuple(picture.get_extent()) == tuple(heat.get_extent()) == d.extent((24, 16)) == (-.5, 15.5, 23.5, -.5)
    m = encode(torch.tensor([[5.5, 9.5]]), (6, 4), 4, .5)[0].numpy()      # the centre of heatmap pixel (1, 2)
    left, right, bottom, top = heat.get_extent()
    y, x = np.unravel_index(m.argmax(), m.shape)
    assert left + (x+.5)*(right-left)/4 == 5.5 and top + (y+.5)*(bottom-top)/6 == 9.5

def test_drawing_keeps_the_borders(ax):
    d.picture(ax, img); before = ax.axis()
    k = np.array([[-90., 400.]]*17); d.skeleton(ax, k); d.tile_grid(ax, (24, 16), (3, 2))
    assert ax.axis() == before == (-.5, 15.5, 23.5, -.5)

def test_skeleton_marks(ax):
    k = np.random.default_rng(0).random((17, 3))*10; k[:,2] = 2; k[3,2] = 0; k[4,2] = 1; k[0,0] = np.nan
    s = np.ones(17); s[9] = .1
    d.skeleton(ax, k, COCO17, s, .1)
    dots = {tuple(l.get_xydata()[0]): l for l in ax.lines if len(l.get_xdata()) == 1}
    limbs = [l for l in ax.lines if len(l.get_xdata()) == 2]
    at = lambda j: dots.get(tuple(k[j,:2]))
    assert len(dots) == 15 and at(3) is None and at(4).get_markerfacecolor() == 'none' and at(5).get_markerfacecolor() == d.LEFT
    assert at(9).get_alpha() < 1 and at(10).get_alpha() == 1 and at(6).get_markeredgecolor() == d.RIGHT
    assert len(limbs) == sum(not {a, b} & {0, 3} for a, b in COCO17.limbs)
    assert [l.get_linestyle() for l in limbs].count('--') == 1       # left elbow to left wrist

def test_tile_lines(ax):
    d.tile_grid(d.picture(ax, img), (24, 16), (3, 2))
    h, v = (c.get_segments() for c in ax.collections)
    assert [s[0][1] for s in h] == [7.5, 15.5] and [s[0][0] for s in v] == [7.5]

@pytest.mark.parametrize('n', [0, 1, 5, 8])
def test_strip(n):
    fig = d.strip([img]*n, [str(i) for i in range(n)], cols=4)
    assert len(fig.axes) == n and [a.get_title() for a in fig.axes] == [str(i) for i in range(n)] and fig.dpi <= 80
    assert not plt.fignum_exists(fig.number)
    assert Image.open(io.BytesIO(d.png(fig))).format == 'PNG'

def test_png_of_a_picture_is_lossless():
    back = np.array(Image.open(io.BytesIO(d.png(img, 3))))
    assert back.shape == (72, 48, 3) and (back[1::3,1::3] == img).all()

def test_sides():
    c = d.side_colours(COCO17)
    assert c[0] == d.MIDDLE and c[1::2] == [d.LEFT]*8 and c[2::2] == [d.RIGHT]*8

def test_by_side():
    h = np.zeros((17, 2, 2)); h[5,0,0], h[6,0,1], h[0,1,0], h[6,1,1], h[5,1,1] = .9, .5, .2, .4, .3
    top, c = d.by_side(h)
    left, right, middle = ([int(s[i:i+2], 16) for i in (1, 3, 5)] for s in (d.LEFT, d.RIGHT, d.MIDDLE))
    assert (top == [[.9, .5], [.2, .4]]).all() and c.tolist() == [[left, right], [middle, right]]
    a = d.heat(np.zeros((2, 2, 3), np.uint8), top, alpha=1, colours=c)
    assert a[0,0].tolist() == left and abs(a[1,0] - .4*np.array(middle)).max() <= 1
