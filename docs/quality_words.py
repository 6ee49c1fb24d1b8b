"""What `docs/quality.md` says before its tables; to be looked at again when runs are replaced."""

INTRODUCTION = """# Translations that work

Written by `python docs/render_quality.py`, not by hand, from `docs/results/quality.json`, which the runs of
`examples/quality/*.toml` filled. Every row is the mean over report hosts on the 10,000 test images (500 of the small
digits), with its 95% t-interval over hosts. Nothing was tuned on these hosts, but that the learned translator's three
rounds in place of one were also tried on those of the paper's protocol, as were three ways to use strokes, which are
all shown. *Place* is where the mean stands between random initialisation (0%) and the trained target (100%) on the same
hosts. *Images* are looked at without their labels, but for the trained target's. *Zoo* is the number of trained hosts a
learned translator had learned from. *Less* is the difference to one method, host by host, with its 95% interval.
*Distillation* is step 2 with the source network's outputs in place of labels (Adam, 300 steps for 64 inputs, 600 for
1,024, from the refitted block; on all images 940 steps of 128, twice each, from the pruned block); *weighed* counts
features by how much the outputs depend on them, *both* matches such features and outputs.

*Seconds* are wall-clock for one host while all are translated together. They are from three machines, so compare
them within a table, and there with care: on one core of a machine of 16 in `light_conv` and most of `paper_conv`; on an
H200 for step 2 and the refit in `paper_mlp` and `paper_attention`; on a busy machine of 2 cores for learned
translators, for the weighed and distilled strokes, which are slower there by six times or so, and for distillation on
all images.

In the figure learned translators are blue and all else orange; hollow marks look at images. Ticks on a dotted line are
what a translation costs where 1, 100 and 10,000 models share the translator's zoo and training.

**What to use.** With unlabelled images, the refit and feature matching or distillation behind it, on as many as there
are. Without, a learned translator where many models are to be translated, as one pass takes milliseconds; where there
are few, or a zoo cannot be had, matching on pen strokes, which takes seconds and is a little better still.

**Three seeds of the translator** (`learned_seeds`, `learned_seeds_mlp`, `learned_seeds_attn`), each from 512 hosts, in
one pass without an image: to convolutions 105% of the way to the trained target, to an MLP 90%, to attention 77%, where
80% was aimed at; 300 steps on 256 pen strokes more, still without an image, bring attention to 92% (`learned_attn`).
`learned_on_paper` has three seeds too.

**A small zoo is enough** for convolutions (`learned_zoo`): with as many steps, 32 training hosts are 0.4 points short
of 512.

**Which ingredients count** (`learned_ablation`, from 512 hosts): without the learned probes, on which the last layer is
solved for, 4.4 points go (with three layers of attention in their place; but without probes there are no rounds either,
and one round costs 0.8). Starting from the default block costs 0.3, not reading BatchNorm 0.2, four probes in place of
sixteen 0.1, and not reading former and latter nothing. What counts most is the functional objective: the one without
probes falls from 91.4 to 70.1, to the zero block, when it is trained by the error of parameters instead, even at
the best order of hidden units.

**One translator for several widths** (`learned_widths`, trained for 2, 3 and 4 hidden units at once) is within 0.1
points of one for each (`learned_each_width_2`, `_4`, `learned_seeds` for 3). At 5, which it never saw, it is as near to
one that was trained for 5, above the trained target and above all closed forms, the refit on strokes included. 300
steps of matching on strokes, behind the refit or behind it, end 0.3 higher, and alike (−0.03 points, −0.20 to 0.14).

**Hosts unlike its own** (`learned_elsewhere_*`): the same translator, its first seed, goes 118% of the way on hosts
trained on 1% of the images, 104% on those trained on 10%, and 102% on its own report hosts after a fifth of their
training more, at a tenth of the rate: a model that is updated is translated again in milliseconds. With former and
latter of the small digits around the frozen source blocks it goes 79%, and 84% on hosts of the small digits alone.

`learned_families`, `learned_families_mlp` and `learned_families_attn` are one translator that writes all three
families, from 256 training hosts in 384 steps, about 128 for each family; one seed. At the MLP and at convolutions
step 2 was not run again: by trained targets of the same hosts it goes 88% and 105% of the way.

`learned_snapshots` asks what more comes of 64 training hosts (144 steps, 48 report hosts, one seed). Differences to
these hosts alone, host by host (`paramtrans compare`): with snapshots of them at 0.5 and 0.75 of their training
(`zoo.snapshots`), at no further cost, +0.2 points (95% interval 0.0 to 0.4); with twice as many hosts at twice the cost
+0.3 (0.1 to 0.5); with orbit augmentation 0.0 (−0.1 to 0.1), as this translator knows the symmetries; with half as many
hosts, for as many training steps in all, whose trained targets are matched too, −0.2 (−0.4 to 0.0). A Mixer, which
does not know the symmetries, stays at the zero block in so few steps: what the orbit is worth to it is not measured.
The hosts were there before, so for the snapshots they were trained again, which `zoo_seconds` in the JSON counts.

[Why the squared error of parameters is stuck](exchangeable.md) is a page of its own.

Light protocol: 200 steps of batch 128, one-cycle to 0.1, no flips. Paper protocol: 10 epochs at 0.01, with flips.
"""
