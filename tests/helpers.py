"Truth that the tests share: loops and matrices written from the definitions, and people who need no files."
import math
import numpy as np, torch

torch.set_num_threads(1)
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # ImageNet's


def matrix3(rotation, scale, mirror, size):
    "The 3x3 matrix of a view: mirror, shrink by `scale`, turn, all about the middle of the pixels 0..W-1, 0..H-1."
    def shift(x, y): return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.]])
    (h, w), t, m = size, math.radians(rotation), -1. if mirror else 1.
    turn = np.array([[math.cos(t), -math.sin(t), 0], [math.sin(t), math.cos(t), 0], [0, 0, 1]])
    return shift((w-1)/2, (h-1)/2) @ turn @ np.diag([1/scale, 1/scale, 1]) @ np.diag([m, 1, 1]) @ shift((1-w)/2, (1-h)/2)

def two(M): return torch.tensor(np.asarray(M)[..., :2, :], dtype=torch.float32)

def heatmap3(M, stride):
    "The movement `M` of the picture as a movement of heatmap pixels; pixel 0 sits at (stride-1)/2 in the picture."
    S = np.array([[stride, 0, (stride-1)/2], [0, stride, (stride-1)/2], [0, 0, 1.]])
    return np.linalg.inv(S) @ M @ S

def places(M, size):
    "Where each pixel of an output of `size` comes from: x and y, (h,w) each."
    y, x = np.mgrid[:size[0], :size[1]].astype(float)
    m = np.linalg.inv(M)
    return m[0,0]*x+m[0,1]*y+m[0,2], m[1,0]*x+m[1,1]*y+m[1,2]

def linear(t): return np.maximum(0, 1-abs(t))

def cubic(t, a=-.75):
    "Keys' kernel with torch's a."
    t = abs(t)
    return np.where(t <= 1, (a+2)*t**3-(a+3)*t**2+1, np.where(t < 2, a*t**3-5*a*t**2+8*a*t-4*a, 0))

def sample(I, x, y, kernel=linear):
    "The picture I (h,w) at places x, y: a sum over the 4x4 pixels around, pixels outside are 0."
    h, w = I.shape
    out = np.zeros(np.shape(x))
    for dx in range(-1, 3):
        for dy in range(-1, 3):
            i, j = np.floor(x).astype(int)+dx, np.floor(y).astype(int)+dy
            ok = (i >= 0) & (i < w) & (j >= 0) & (j < h)
            out += np.where(ok, I[j.clip(0, h-1), i.clip(0, w-1)], 0)*kernel(x-i)*kernel(y-j)
    return out

def moved(H, M, stride, flip):
    "Heatmaps (J,h,w) in the view that the picture movement M leads to; left and right exchanged by a mirror."
    x, y = places(heatmap3(M, stride), H.shape[1:])
    out = np.stack([sample(h, x, y, cubic) for h in H])
    return out[list(flip)] if np.linalg.det(M) < 0 else out

def view(canvas, M, size):
    "The picture (3,H,W) that the network sees of a canvas (3,Hc,Wc) in view M."
    Hc, Wc = canvas.shape[1:]
    x, y = places(M, size)
    x, y = x+(Wc-size[1])/2, y+(Hc-size[0])/2
    return np.stack([sample((c-m)/s, x, y) for c, m, s in zip(canvas.astype(float), MEAN, STD)])

def gaussian(c, size, sigma):
    "A peak-1 Gaussian at c = (x,y), heatmap pixels."
    y, x = np.mgrid[:size[0], :size[1]]
    return np.exp(-((x-c[0])**2+(y-c[1])**2)/(2*sigma**2))

def smooth(H, sigma):
    "DARK's modulation: a Gaussian filter, then the old height."
    from scipy.ndimage import gaussian_filter
    B = gaussian_filter(H, sigma, mode='constant', radius=math.ceil(2.5*sigma))
    return B*H.max()/B.max()

def peak(H, how, sigma=0):
    "One map's point in heatmap pixels, read from its pixels one by one."
    (h, w), (y, x) = H.shape, np.unravel_index(H.argmax(), H.shape)
    c = np.array([x, y], float)
    if how == 'argmax' or not (0 < x < w-1 and 0 < y < h-1): return c
    if how == 'quarter': return c+.25*np.sign([H[y,x+1]-H[y,x-1], H[y+1,x]-H[y-1,x]])
    L = np.log(np.maximum(smooth(H, sigma) if sigma else H, 1e-10))
    g = np.array([L[y,x+1]-L[y,x-1], L[y+1,x]-L[y-1,x]])/2
    xy = (L[y+1,x+1]-L[y-1,x+1]-L[y+1,x-1]+L[y-1,x-1])/4
    D = np.array([[L[y,x+1]-2*L[y,x]+L[y,x-1], xy], [xy, L[y+1,x]-2*L[y,x]+L[y-1,x]]])
    return c+np.clip(-np.linalg.solve(D, g), -1, 1) if np.linalg.eigvalsh(D).max() < 0 else c

def centroid(H):
    "Centre of mass of maps (…,h,w): x, y in heatmap pixels."
    y, x = np.mgrid[:H.shape[-2], :H.shape[-1]]
    return np.stack([(H*x).sum((-2,-1)), (H*y).sum((-2,-1))], -1)/H.sum((-2,-1))[...,None]


class People:
    "A store without files: each joint is a coloured patch on a noisy ground."
    def __init__(self, n=16, size=(96, 64), margin=1.5, seed=0, joints=17):
        r = np.random.default_rng(seed)
        (H, W), (Hc, Wc) = size, (2*round(margin*s/2) for s in size)
        xy = r.uniform((5, 5), (W-6, H-6), (n, joints, 2))
        v = r.choice(3, (n, joints, 1), p=(.2, .2, .6))
        self.keypoints = np.concatenate([xy*(v > 0), v], -1).astype(np.float32)
        self.canvases = r.integers(80, 140, (n, Hc, Wc, 3)).astype(np.uint8)
        colours = r.integers(0, 256, (joints, 3))
        for c, k in zip(self.canvases, xy):
            for (x, y), colour in zip(k.round().astype(int)+((Wc-W)//2, (Hc-H)//2), colours):
                c[y-2:y+3, x-2:x+3] = colour
        self.extent = r.uniform(.5*H, .9*H, n).astype(np.float32)
        self.matrix, self.size, self.margin = np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1)), size, margin
        self.photos = np.arange(n, dtype=np.uint32)
        self.inside = np.tile(np.array([-W, -H, 2*W, 2*H], np.float32), (n, 1))
    def __len__(self): return len(self.canvases)
    def batch(self, rows): return torch.from_numpy(self.canvases[np.atleast_1d(rows)]).permute(0, 3, 1, 2)
