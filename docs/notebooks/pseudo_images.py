# %% [markdown]
# # What do pseudo images look like, and what does ICFIL change?
#
# PURER has no images, so it makes some: pixels are changed until the teachers recognise a class in them.
# [ICFIL](../icfil.md) (inversion calibration following the inner loop) makes more of them at test time,
# for each task. This page looks at both. It runs in seconds on one CPU core, on the built-in letters,
# with a hundredth of the iterations of the paper, so its numbers say nothing about the methods.

# %%
import bench
from bench.suites.protocols import budget

few = budget("micro").model_copy(
    update={"meta_iterations": 10, "validate_every": 5, "n_val_tasks": 8}
)
data = bench.load_data("glyphs")
pool = bench.train_pool(data, budget=few, device="cpu")
print(f"{len(pool)} teachers of {pool.n_classes} classes, accuracy {pool.mean_accuracy:.2f}")

# %% [markdown]
# ## Pseudo images
#
# A fit keeps pictures of its start, middle and end. Each group shows the pseudo images of one class. They
# begin as noise.

# %%
learner = bench.fit("purer", pool, data, budget=few, device="cpu", pixel_lr=0.1)
pictures = learner.images()
pictures["pseudo-images-start"]

# %% [markdown]
# At the end, strokes begin to show where the teachers look for them. Longer fits show more.

# %%
pictures["pseudo-images-end"]

# %% [markdown]
# How well the teachers recognise them is the loss of the inversion, which falls:

# %%
curve = learner.curve()
losses = curve[curve["name"] == "cross_entropy"].set_index("step")["value"]
print(losses.iloc[[0, len(losses) // 2, -1]].round(3).to_string())

# %% [markdown]
# ## What ICFIL changes
#
# The same learner is scored on the same tasks, as it is and calibrated on each of them. ICFIL takes its
# time: it inverts pseudo images for every task.

# %%
plain = bench.evaluate(learner, data, n_tasks=10)
calibrated = bench.evaluate(learner, data, n_tasks=10, calibration="icfil", steps=5)
print(plain)
print(calibrated)

# %% [markdown]
# Task by task, the accuracy before and after:

# %%
both = plain.frame()[["task", "accuracy"]].merge(
    calibrated.frame()[["task", "accuracy"]], on="task"
)
both.columns = ["task", "plain", "with ICFIL"]
both.round(3)

# %%
bench.compare(plain, calibrated)

# %% [markdown]
# Ten tasks, one pool and a meta-model that is hardly trained: this says how to look, not what to expect.
# [Results](../results/ablation.md) has ICFIL with methods other than PURER on 600 tasks of CIFAR-FS.
