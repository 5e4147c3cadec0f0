"The moving averages against their closed form, and the way networks look."
import numpy as np, pytest, torch, torch.nn as nn
import helpers
from sshpe.models.posenet import build
from sshpe.models.ema import answering, average, copy_of

def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

def shaken(f, k):
    "Other weights and other statistics, as after a step of training."
    g = torch.Generator().manual_seed(k)
    with torch.no_grad():
        for w in f.state_dict().values():
            if w.is_floating_point(): w.copy_(torch.rand(w.shape, generator=g)*2+.1)
    f[1].num_batches_tracked += k

@pytest.mark.parametrize('decay', [0., .6, .9, .999])
@pytest.mark.parametrize('buffers', [True, False])
def test_ten_steps_in_closed_form(decay, buffers):
    student = net()
    teacher = copy_of(student)
    values = lambda f: {k: v.double().clone() for k, v in f.state_dict().items()}
    start, seen = values(teacher), []
    for k in range(10):
        shaken(student, k); seen.append(values(student))
        average(teacher, student, decay, buffers)
    now, weights = values(teacher), {k for k, _ in student.named_parameters()}
    for k, v in now.items():
        truth = start[k]*decay**10+sum((1-decay)*decay**(9-i)*s[k] for i, s in enumerate(seen))
        if k not in weights and not buffers: assert torch.equal(v, start[k])
        elif k.endswith('num_batches_tracked'): assert v == seen[-1][k] and v > 0
        else: assert torch.allclose(v, truth, atol=1e-6)
        if decay == 0 and (k in weights or buffers): assert torch.equal(v, seen[-1][k])

def test_the_student_does_not_change_and_the_teacher_is_its_own():
    student = net(); shaken(student, 1)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    teacher = copy_of(student)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not any(w.requires_grad for w in teacher.parameters()) and all(w.requires_grad for w in student.parameters())
    shaken(teacher, 2); average(teacher, student, .5)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert not any(w.requires_grad for w in teacher.parameters())

def test_a_whole_pose_network():
    a, b = build('narrow18', 3, 8, seed=1), build('narrow18', 3, 8, seed=2)
    t = copy_of(a); average(t, b, .25)
    A, B = a.state_dict(), b.state_dict()
    for k, v in t.state_dict().items(): assert not v.is_floating_point() or torch.allclose(v, .25*A[k]+.75*B[k], atol=1e-6)

@pytest.mark.parametrize('was', [True, False])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_answering(was, mode):
    a, b = net().train(was), net(1).train(not was)
    x = torch.randn(5, 3, 6, 6)
    stats = a[1].running_mean.clone(), a[1].running_var.clone()
    with answering([a, b], mode):
        assert a.training == b.training == a[1].training == (mode == 'train') and not torch.is_grad_enabled()
        y = a(x)
    assert not y.requires_grad and torch.is_grad_enabled()
    assert a.training == a[1].training == was and b.training == (not was)
    h = a[0](x)
    m, v = (h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)) if mode == 'train' else stats
    h = (h-m.view(-1, 1, 1))/(v.view(-1, 1, 1)+1e-5).sqrt()
    assert torch.allclose(y, a[3](h.relu()), atol=1e-5)  # the affine part of a new BatchNorm is 1, 0
    assert (a[1].num_batches_tracked == 1) == (mode == 'train')

def test_answering_restores_after_an_error_and_inside_no_grad():
    a = net().train()
    with pytest.raises(ZeroDivisionError), answering([a]): 1/0
    assert a.training and torch.is_grad_enabled()
    with torch.no_grad():
        with answering([a]): pass
        assert not torch.is_grad_enabled()
    assert a(torch.randn(2, 3, 5, 5)).requires_grad
