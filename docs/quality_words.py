"""What `docs/quality.md` and `docs/quality-tables.md` say; to be looked at again when runs are replaced.

`{experiment|method|what}` is a number of docs/results/quality.json: see `summaries.TOLD`.
"""

BEGINNING = """# Ways to write a smaller block, compared

A *host* is a small network for MNIST with a block in its middle. A *method* writes a smaller block, which takes that
block's place. Nothing else in the host changes. The figure shows the accuracy of the host afterwards, for three kinds
of smaller blocks: convolutions with half the channels, an MLP, and attention. *Light* hosts were trained for 200 steps
({learned_seeds|source|hosts} hosts), *paper* hosts as in the paper, for 10 epochs ({paper_conv|source|hosts} hosts).
"""

READING = """Mean accuracy on the 10,000 test images in percent, ± half of its 95% interval over hosts; – was not
measured.

- **Small block trained on labels**: the smaller block was trained in the host, on all training images, for as long as
  the host was (the paper's step 2). It costs training, and starts from random parameters, so others may pass it.
- **Learned translator**: a model that reads the block and its surroundings and writes the smaller block in one pass. It
  learned from other hosts, all of them light ones: {learned_seeds|translated, mean of 3 seeds|zoo} of them, but
  {learned_on_paper|learned on light hosts|zoo} in the second column and {paper_mlp|learned on light hosts|zoo} in the
  fourth and sixth. The light columns are means over three seeds of its training, the others are of one seed.
- **Then 64 images**: 300 optimiser steps behind it, on 64 images without labels.
- **Least squares** (`refit`): keep the most important units, and solve the layer that reads them in closed form.
  **Feature matching** goes on from there with 300 steps on what the block gives, **distillation** with 600 steps on
  what the whole network gives. None of them sees a label. **Pen strokes** are 256 drawings of random curves in place of
  images.
- **Pruning**: keep the strongest units, change nothing else.

All rows were measured before 28 November 2026. Since then least squares chooses its ridge and its units by halves of
the inputs, and matching keeps a part of them aside and goes back by it; the rows of both are those of the rules before.
"""

FOLLOWS = """## What follows

- **With some unlabelled images**, use least squares, then feature matching or distillation, on as many images as there
  are. Distillation on 1,024 images brings paper hosts to {paper_conv|distillation, 1,024 images|all}; the block that
  was trained on all labels has {paper_conv|trained_target|all}.
- **Without an image, for many networks**, use a learned translator. A pass takes
  {learned_seeds|translated, mean of 3 seeds|ms} a host. On light hosts it closes
  {learned_seeds|translated, mean of 3 seeds|share} of the gap between random initialisation and the trained block, on
  paper hosts, which are unlike those that it learned from, {learned_on_paper|learned on light hosts|share}.
- **Without an image, for few networks**, match features on pen strokes:
  {paper_conv|matching, 256 strokes|all} on paper hosts, in {paper_conv|matching, 256 strokes|seconds} a host.
- **To another architecture is harder.** The same share is {learned_seeds_mlp|translated, mean of 3 seeds|share} to an
  MLP and {learned_seeds_attn|translated, mean of 3 seeds|share} to attention on light hosts, and
  {paper_mlp|learned on light hosts|share} and {paper_attention|learned on light hosts|share} on paper hosts.
- **Pruning alone is not enough**: on paper hosts it is hardly better than a random block.

Nothing was tuned on these hosts, with two exceptions: the number of the translator's rounds (three, not one) and three
ways to draw strokes were also tried on the paper hosts.

## In detail

[Every method and every experiment](quality-tables.md) is on a page of its own, with seconds, differences host by host,
and how each number was measured. [Why squared error of parameters is stuck](exchangeable.md) explains why the paper's
objective does not appear here.
"""

NOTES = {
    "How many networks must a translator learn from?": """Few, for convolutions (`learned_zoo`). With as many training
steps, {learned_zoo|hosts_32|zoo} hosts give {learned_zoo|hosts_32|all}, {learned_zoo|hosts_512|zoo} hosts
{learned_zoo|hosts_512|all}.

`learned_snapshots` asks what more comes of 64 training hosts (144 steps, 48 report hosts, one seed). Differences are
host by host, from `paramtrans compare`. Snapshots of the hosts at 0.5 and 0.75 of their training (`zoo.snapshots`), at
no further cost: +0.2 points (0.0 to 0.4). Twice as many hosts: +0.3 (0.1 to 0.5). Orbit augmentation: 0.0 (−0.1 to
0.1), as this translator knows the symmetries. Half as many hosts, whose trained blocks are matched too, for as many
training steps in all: −0.2 (−0.4 to 0.0). A Mixer, which does not know the symmetries, stays at the zero block in so
few steps. The hosts were there before, so for the snapshots they were trained again; `zoo_seconds` in the JSON counts
that.
""",
    "Which parts of the translator count?": """`learned_ablation`, from {learned_ablation|whole|zoo} hosts. Points of
accuracy that are lost without a part:

| without | points lost |
| --- | --- |
| learned probes, on which the last layer is solved for (three layers of attention in their place) | \
{learned_ablation|no_probes|lost} |
| rounds: one in place of three | {learned_ablation|one_round|lost} |
| a start at the strongest units: the default block in its place | {learned_ablation|default_base|lost} |
| reading BatchNorm | {learned_ablation|batchnorm_unread|lost} |
| sixteen probes: four in their place | {learned_ablation|four_probes|lost} |
| reading former and latter | {learned_ablation|no_surroundings|lost} |

Without probes there are no rounds either. What counts most is the functional objective, which compares what blocks
compute. The translator without probes reaches {learned_ablation|no_probes|mean} with it, and
{learned_ablation|no_probes_matching_mse|mean} when it is trained by the error of parameters instead, even at the best
order of hidden units; the zero block has {learned_ablation|zero_block|mean}.
""",
    "Can one translator write several widths?": """Yes. `learned_widths` was trained for 2, 3 and 4 hidden units at
once. It reaches {learned_each_width_2|one for 2, 3 and 4|mean}, {learned_widths|translated|mean} and
{learned_each_width_4|one for 2, 3 and 4|mean}; translators for one width each reach
{learned_each_width_2|translated|mean}, {learned_seeds|translated, mean of 3 seeds|mean} and
{learned_each_width_4|translated|mean}. At 5 units, which it never saw, it reaches
{learned_each_width_5|one for 2, 3 and 4|mean}; one that was trained for 5 reaches
{learned_each_width_5|translated|mean}, the block trained on labels {learned_each_width_5|trained_target|mean}, least
squares on strokes {learned_each_width_5|refit, 256 strokes|mean}. 300 steps of matching on strokes, behind the
translator or behind least squares, end at {learned_each_width_5|one for 2, 3 and 4, then 256 strokes|mean} and
{learned_each_width_5|matching, 256 strokes|mean}.
""",
    "Does it work on networks unlike those it learned from?": """`learned_elsewhere_*`: the same translator, its first
seed. The share of the gap that it closes, between random initialisation and the block trained on labels:

| hosts | share | accuracy |
| --- | --- | --- |
| trained on 1% of the images | \
{learned_elsewhere_one_percent|learned|share} | \
{learned_elsewhere_one_percent|learned|all} |
| trained on 10% of the images | \
{learned_elsewhere_ten_percent|learned|share} | \
{learned_elsewhere_ten_percent|learned|all} |
| its own report hosts, after a fifth of their training more, at a tenth of the rate | \
{learned_elsewhere_updated|learned|share} | \
{learned_elsewhere_updated|learned|all} |
| small digits: new former and latter around the frozen source blocks | \
{learned_elsewhere_digits_around|learned|share} | \
{learned_elsewhere_digits_around|learned|all} |
| small digits alone | {learned_elsewhere_digits|learned|share} | {learned_elsewhere_digits|learned|all} |

So a network that is updated can be translated again in milliseconds.
""",
    "Can one translator write several architectures?": """`learned_families`, `learned_families_mlp` and
`learned_families_attn` are one translator that writes all three kinds of blocks, from
{learned_families|translated|zoo} training hosts in 384 steps, about 128 for each kind; one seed. It reaches
{learned_families|translated|all} at convolutions, {learned_families_mlp|learned for three families|all} at the MLP and
{learned_families_attn|learned for three families|all} at attention. At the MLP and at convolutions the trained block
was not measured again: by those of the same hosts it closes 88% and 105% of the gap.

`learned_paper`, `learned_paper_mlp` and `learned_paper_attn` are the same from {learned_paper|translated|zoo} hosts of
the paper's protocol, and from what these were after 5, 20 and 50% of their training, in 576 steps; one seed. On the 17
finished hosts it reaches {learned_paper|translated|all} at convolutions,
{learned_paper_mlp|learned for three families|all} at the MLP and {learned_paper_attn|learned for three families|all} at
attention: {learned_paper|translated|share}, 70% and 53% of the gap to the trained blocks of these hosts, where
translators that saw light hosts alone close up to 88%, 60% and 33%. So hosts like those to be translated help most
where the target is least like the source.

`learned_separable` writes depthwise-separable convolutions, from {learned_separable|translated|zoo} training hosts; one
seed. It reaches {learned_separable|translated|all}, {learned_separable|translated|share} of the gap, in one pass and
without an image. `learned_bottleneck` does the same for bottlenecks, one of whose layers is read and written by hidden
units: {learned_bottleneck|translated|all}, {learned_bottleneck|translated|share} of the gap.
""",
}
"""Questions, and what was found."""

INTRODUCTION = """# Every method, every experiment

Written by `python docs/render_quality.py`, not by hand, from `docs/results/quality.json`, which the runs of
`examples/quality/*.toml` filled. [A summary](quality.md) says what follows from these tables.

Every row is the mean over report hosts on the 10,000 test images (500 of the small digits), with its 95% t-interval
over hosts. The columns:

- *images*: images that a method looks at, without their labels, but for the trained target's;
- *zoo*: trained hosts that a learned translator had learned from;
- *seconds a host*: wall-clock, while all hosts are translated together;
- *place*: where the mean stands between random initialisation (0%) and the trained target (100%) on the same hosts;
- *less …*: the difference to one method, host by host, with its 95% interval.

*Trained target* is the small block trained in the host (step 2). *Zero block* is a block that adds nothing to its
input. *Distillation* is step 2 with the source network's outputs in place of labels: Adam, 300 steps for 64 inputs, 600
for 1,024, from the block that least squares (`refit`) gives; on all images 940 steps of 128, twice each, from the
pruned block. *Weighed* counts features by how much the outputs depend on them, *both* matches such features and
outputs.

Seconds are from three machines, so compare them within a table, and there with care: on one core of a machine of 16 in
`light_conv` and most of `paper_conv`; on an H200 for step 2 and the refit in `paper_mlp` and `paper_attention`; on a
busy machine of 2 cores for learned translators, for the weighed and distilled strokes, which are slower there by six
times or so, and for distillation on all images.

Light protocol: 200 steps of batch 128, one-cycle to 0.1, no flips. Paper protocol: 10 epochs at 0.01, with flips.

In the figure learned translators are blue and all else orange; hollow marks look at images. Ticks on a dotted line are
what a translation costs where 1, 100 and 10,000 models share the translator's zoo and training.
"""
