"What one of several processes does in tests/test_processes.py; started by torchrun with the folder for its answers."
import hashlib, json, sys
import torch, torch.nn as nn
from sshpe.models import distributed
from sshpe.models.posenet import SyncNorm
from test_processes import learner, rows_of

distributed.join('cpu')
out, answers = sys.argv[1], {}

# synchronised normalisation of halves against torch's own of the whole
torch.manual_seed(0)
x, g = torch.randn(6, 4, 5, 3), torch.randn(6, 4, 5, 3)
whole, mine = nn.BatchNorm2d(4), SyncNorm(4)
for f in whole, mine: nn.init.normal_(f.weight, generator=torch.Generator().manual_seed(1))
mine.load_state_dict(whole.state_dict())
at = distributed.pieces(6)[0]; part = slice(at.start, at.stop)
a, b = x.clone().requires_grad_(), x[part].clone().requires_grad_()
y, z = whole(a), mine(b)
(y*g).sum().backward(); (z*g[part]).sum().backward()
grads = [mine.weight.grad, mine.bias.grad]; distributed.total_(grads)
answers['norm'] = [float((u-v).abs().max()) for u, v in ((y[part], z), (a.grad[part], b.grad), (whole.running_mean, mine.running_mean),
                                                         (whole.running_var, mine.running_var), (whole.weight.grad, grads[0]), (whole.bias.grad, grads[1]))]

# steps together
for name, norm in (('pose-mum-plus', 'sync'), ('denoise-select', 'frozen'), ('pose-cons-ema-0.6', 'group'), ('pose-mum-plus', 'batch')):
    l = learner(name, norm=norm)
    rows = rows_of(l)
    bits = hashlib.sha256(b''.join(t.numpy().tobytes() for f in l.remembered().values() for t in f.state_dict().values())).hexdigest()
    answers[f'{name} {norm}'] = dict(rows=rows, bits=bits, bins=l.bins)
answers['agree'] = [distributed.agree(-7), distributed.agree(distributed.rank())]
learner('dual-pose', norm='sync', every=2).fit(f'{out}/state.pt', until=3)  # stops between two rows of the log

# two stop within an interval of the log, after the step of it in which pseudo-labels are counted, and two go on
def eight(): return learner('denoise-select', norm='sync', steps=8, every=4)
whole, state = eight().fit(), f'{out}/interval.pt'
eight().fit(state, until=7)
distributed.agree(0)  # it is written
answers['stopped'] = [whole.rows, eight().fit(state).rows]
with open(f'{out}/{distributed.rank()}.json', 'w') as f: f.write(json.dumps(answers))
distributed.leave()
