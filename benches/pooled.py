"""Pooled models on the splits of `qis eval`: what one place that held every raw row would predict.

    qis eval --domain heart4.toml --data heart4.csv --splits 5 --splits-out DIR
    python pooled.py --splits DIR [--json FILE]

DIR holds one split-SEED.json per split: which rows of the table were dealt to nodes and which are test rows, the
outcomes of both, the columns that the domain's features are read from, and what each method of `qis eval` predicted.
The models here are fitted on the raw columns of the same training rows and predict the same test rows. Numeric
columns enter as numbers, others one-hot; columns that no feature of the domain reads (identifiers, the site) are left
out, and so is the action, which the answers of a swarm compared here do not know either.

Models, each with its settings chosen by 4-fold cross-validation inside the training rows (log loss or squared error):

    knn       k nearest neighbours, standardised columns, k of 5, 15, 31, 61, uniform or by distance
    linear    logistic regression, C of 10^-3..10^1; for real outcomes ridge regression, penalty 10^-2..10^3
    lightgbm  gradient boosting, learning rate .05, leaves of 4, 8, 16 or 31, number of trees by early stopping
    hist      scikit-learn's HistGradientBoosting, learning rate .05, leaves of 4, 8 or 31, trees the same way

Printed are mean and standard error over splits of AUC, Brier score, log loss, accuracy and RMSE (as `qis eval` defines
them), and the difference swarm minus the best pooled model, paired by split, with the 95% interval of Student's t. The
best model of a measure is the one with the best mean over the splits: chosen with the test rows in sight, which
favours the pooled side.
"""

import argparse
import csv
import gzip
import io
import json
import math
import os
import re
import sys
import warnings

# Trees are small: on a shared machine threads that wait for each other take many times as long as one does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np  # noqa: E402 (the number of threads is read when it is imported)

warnings.filterwarnings("ignore")
FOLDS = 4
TREES_MAX = 600
LARGER_IS_BETTER = {"auc": True, "accuracy": True, "brier": False, "log_loss": False, "rmse": False}


def records(path, source):
    """Cells of a table: (names, rows)."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        text = file.read()
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("{"):
        objects = [json.loads(line) for line in text.splitlines() if line.strip()]
        names = sorted({name for record in objects for name in record})
        return names, [["" if r.get(n) is None else str(r[n]) for n in names] for r in objects]
    separator = source.get("separator") or next((s for s in ",\t;" if s in first), "whitespace")
    if separator == "whitespace":
        rows = [line.split() for line in text.splitlines() if line.strip()]
    else:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    rows = [[cell.strip() for cell in row] for row in rows]
    if source.get("header"):
        return source["header"], rows
    return rows[0], rows[1:]


def same(cell, mark):
    """Whether a cell is spelled as a mark: the same text, or another form of the same number."""
    if cell == mark:
        return True
    try:
        return float(cell) == float(mark)
    except ValueError:
        return False


def number(cell):
    """A cell's number; NaN where there is none, as for a reader of unseen rows."""
    try:
        return math.nan if cell is None else float(cell)
    except ValueError:
        return math.nan


def encode(names, rows, columns):
    """Float columns of the rows: numbers as they are (NaN where missing), other columns one-hot."""
    blocks, numeric = [], []
    for column in columns:
        at = names.index(column["column"])
        marks = column["missing"]
        cells = [None if c[at] == "" or any(same(c[at], m) for m in marks) else c[at] for c in rows]
        if column["kind"] == "numeric":
            blocks.append(np.array([number(c) for c in cells])[:, None])
            numeric.append(True)
            continue
        levels = sorted({c for c in cells if c is not None})
        if any(c is None for c in cells):
            levels.append(None)
        if len(levels) == 2:
            levels = levels[1:]
        blocks.append(np.array([[float(c == level) for level in levels] for c in cells]))
        numeric += [False] * len(levels)
    return np.hstack(blocks), np.array(numeric)


def dense(train, test, numeric):
    """Imputed by the training median with a mark of absence, then standardised by the training rows."""
    def both(x):
        absent = np.isnan(x[:, numeric])
        return np.hstack([np.where(np.isnan(x), centre, x), absent[:, some].astype(float)])

    centre = np.nan_to_num(np.nanmedian(train, axis=0))
    some = np.isnan(train[:, numeric]).any(axis=0)
    train, test = both(train), both(test)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1
    return (train - mean) / spread, (test - mean) / spread


def folds(count, seed):
    return np.random.default_rng(seed).permutation(np.arange(count) % FOLDS)


class Problem:
    """One thing to fit: classes 0..k-1, or a real number."""

    def __init__(self, y, classes):
        self.y, self.classes = y, classes

    def loss(self, y, predicted):
        if self.classes is None:
            return float(np.mean((predicted - y) ** 2))
        p = np.clip(predicted[np.arange(len(y)), y.astype(int)], 1e-6, 1)
        return float(-np.mean(np.log(p)))

    def predict(self, model, x):
        """Numbers, or rows x classes; classes that the model never saw have probability 0."""
        if self.classes is None:
            return model.predict(x)
        found = model.predict_proba(x)
        full = np.zeros((len(x), self.classes))
        full[:, model.classes_.astype(int)] = found
        return full

    def chosen(self, candidates, x, seed):
        """The candidate with the least loss over folds, fitted to everything."""
        fold = folds(len(self.y), seed)

        def total(make):
            losses = []
            for k in range(FOLDS):
                inside, outside = fold != k, fold == k
                if self.classes is not None and len(set(self.y[inside])) < 2:
                    return math.inf
                model = make().fit(x[inside], self.y[inside])
                losses.append(self.loss(self.y[outside], self.predict(model, x[outside])))
            return np.mean(losses)

        best = candidates[0] if len(candidates) == 1 else min(candidates, key=total)
        return best().fit(x, self.y)


def knn(problem, x, x_test, raw, raw_test, seed):
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    kind = KNeighborsRegressor if problem.classes is None else KNeighborsClassifier
    least = len(x) * (FOLDS - 1) // FOLDS
    makes = [lambda k=k, w=w: kind(n_neighbors=max(1, min(k, least)), weights=w)
             for k in (5, 15, 31, 61) for w in ("uniform", "distance")]
    return problem.predict(problem.chosen(makes, x, seed), x_test)


def linear(problem, x, x_test, raw, raw_test, seed):
    from sklearn.linear_model import LogisticRegression, Ridge
    if problem.classes is None:
        makes = [lambda a=a: Ridge(alpha=a) for a in np.logspace(-2, 3, 6)]
    else:
        makes = [lambda c=c: LogisticRegression(C=c, max_iter=400) for c in np.logspace(-3, 1, 9)]
    return problem.predict(problem.chosen(makes, x, seed), x_test)


def boosted(problem, raw, raw_test, seed, settings, staged):
    """Trees for each setting by the mean validation curve over folds; `staged(setting, trees)` makes a
    model with the method `curve(x, y)` (loss after each tree)."""
    fold = folds(len(problem.y), seed)
    best = (math.inf, None, 1)
    for setting in settings:
        curves = []
        for k in range(FOLDS):
            inside, outside = fold != k, fold == k
            if problem.classes is not None and len(set(problem.y[inside])) < (problem.classes or 2):
                continue
            curves.append(staged(setting, raw[inside], problem.y[inside], raw[outside], problem.y[outside]))
        if not curves:
            continue
        curve = np.mean([c[:min(map(len, curves))] for c in curves], axis=0)
        trees = int(np.argmin(curve))
        if curve[trees] < best[0]:
            best = (curve[trees], setting, trees + 1)
    return best[1] or settings[0], best[2]


def lightgbm(problem, x, x_test, raw, raw_test, seed):
    import lightgbm as lgb
    common = dict(learning_rate=0.05, subsample=0.8, subsample_freq=1, colsample_bytree=0.8, n_jobs=1,
                  random_state=seed, verbose=-1, deterministic=True, force_row_wise=True)
    kind = lgb.LGBMRegressor if problem.classes is None else lgb.LGBMClassifier
    least = 20 if len(raw) > 2000 else 5
    settings = [dict(num_leaves=leaves, min_child_samples=least) for leaves in (4, 8, 16, 31)]
    if len(raw) * (problem.classes or 1) > 10000:
        settings = settings[1::2]

    def staged(setting, x_in, y_in, x_out, y_out):
        model = kind(n_estimators=TREES_MAX, **common, **setting)
        model.fit(x_in, y_in, eval_set=[(x_out, y_out)], callbacks=[lgb.early_stopping(50, verbose=False)])
        (curve,) = model.evals_result_["valid_0"].values()
        return curve

    setting, trees = boosted(problem, raw, raw_test, seed, settings, staged)
    return problem.predict(kind(n_estimators=trees, **common, **setting).fit(raw, problem.y), raw_test)


def hist(problem, x, x_test, raw, raw_test, seed):
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    kind = HistGradientBoostingRegressor if problem.classes is None else HistGradientBoostingClassifier
    common = dict(learning_rate=0.05, early_stopping=False, random_state=seed)
    settings = [dict(max_leaf_nodes=leaves) for leaves in (4, 8, 31)]
    large = len(raw) * (problem.classes or 1) > 10000
    if large:
        settings = settings[1:]
    most = 150 if large else 300

    def staged(setting, x_in, y_in, x_out, y_out):
        model = kind(max_iter=most, **common, **setting).fit(x_in, y_in)
        if problem.classes is None:
            return [problem.loss(y_out, p) for p in model.staged_predict(x_out)]
        return [problem.loss(y_out, p) for p in model.staged_predict_proba(x_out)]

    setting, trees = boosted(problem, raw, raw_test, seed, settings, staged)
    return problem.predict(kind(max_iter=trees, **common, **setting).fit(raw, problem.y), raw_test)


MODELS = {"knn": knn, "linear": linear, "lightgbm": lightgbm, "hist": hist}


def auc(p, t):
    """Mann-Whitney, ties count half; None unless both classes occur."""
    from scipy.stats import rankdata
    positives, negatives = int(t.sum()), int((~t).sum())
    if positives == 0 or negatives == 0:
        return None
    return (rankdata(p)[t].sum() - positives * (positives + 1) / 2) / (positives * negatives)


def mean(values):
    values = [v for v in values if v is not None]
    return float(np.mean(values)) if values else None


def measures(outcomes, estimates):
    """As `qis eval`: estimates in the outcomes' units, rows x outcomes, NaN where there is none."""
    binary = [i for i, o in enumerate(outcomes) if o["kind"] == "binary"]
    other = [i for i, o in enumerate(outcomes) if o["kind"] != "binary"]

    def pairs(i):
        truth = np.array([math.nan if t is None else t for t in outcomes[i]["test"]], dtype=float)
        known = ~np.isnan(truth) & ~np.isnan(estimates[:, i])
        return estimates[known, i], truth[known]

    def chances(i):
        low, high = outcomes[i]["low"], outcomes[i]["high"]
        p, t = pairs(i)
        return (p - low) / (high - low), (t - low) / (high - low) > 0.5

    found = {}
    if binary:
        sides = [chances(i) for i in binary]
        found["auc"] = mean(auc(p, t) for p, t in sides)
        found["brier"] = mean(np.mean((p - t) ** 2) for p, t in sides)
        cut = [(np.clip(p, 1e-6, 1 - 1e-6), t) for p, t in sides]
        found["log_loss"] = mean(-np.mean(np.log(np.where(t, p, 1 - p))) for p, t in cut)
        truth = np.array([s[1] for s in sides]) if len({len(s[1]) for s in sides}) == 1 else None
        if len(binary) == 1:
            found["accuracy"] = float(np.mean((sides[0][0] > 0.5) == sides[0][1]))
        elif truth is not None and (truth.sum(axis=0) == 1).all():
            best = np.argmax(np.nan_to_num(estimates[:, binary], nan=-math.inf), axis=1)
            found["accuracy"] = float(np.mean(best == truth.argmax(axis=0)))
    if other:
        p, t = pairs(other[0])
        found["rmse"] = float(np.sqrt(np.mean((p - t) ** 2)))
    return {name: value for name, value in found.items() if value is not None}


def problems(outcomes):
    """What to fit: (outcome indices, training rows, target, classes); one-of-many is one problem."""
    truth = np.array([[math.nan if t is None else t for t in o["train"]] for o in outcomes], dtype=float)
    kinds = {o["kind"] for o in outcomes}
    if kinds == {"binary"} and len(outcomes) > 1 and (np.nansum(truth, axis=0) == 1).all():
        return [(list(range(len(outcomes))), np.arange(truth.shape[1]), truth.argmax(axis=0), len(outcomes))]
    found = []
    for i, o in enumerate(outcomes):
        known = np.flatnonzero(~np.isnan(truth[i]))
        y = truth[i][known]
        if o["kind"] == "binary":
            found.append(([i], known, ((y - o["low"]) / (o["high"] - o["low"]) > 0.5).astype(int), 2))
        else:
            found.append(([i], known, y, None))
    return found


def predict(split, model, tables):
    """Estimates of one model for the test rows of one split, rows x outcomes."""
    outcomes = split["outcomes"]
    train_names, train_rows = tables[split["tables"]["train"]]
    test_names, test_rows = tables[split["tables"]["test"]]
    chosen = [train_rows[row - 1] for row in split["train"]]
    asked = [test_rows[row - 1] for row in split["test"]]
    if train_names != test_names:
        at = [test_names.index(name) if name in test_names else None for name in train_names]
        asked = [["" if i is None else row[i] for i in at] for row in asked]
    x, numeric = encode(train_names, chosen + asked, split["columns"])
    raw, raw_test = x[:len(chosen)], x[len(chosen):]
    estimates = np.full((len(asked), len(outcomes)), math.nan)
    for indices, known, y, classes in problems(outcomes):
        if classes is not None and len(set(y)) < 2:
            predicted = np.zeros((len(asked), classes))
            predicted[:, int(y[0]) if len(y) else 0] = 1
        else:
            inside, outside = dense(raw[known], raw_test, numeric)
            predicted = MODELS[model](Problem(y, classes), inside, outside, raw[known], raw_test, split["seed"])
        if classes is None:
            estimates[:, indices[0]] = predicted
        elif len(indices) > 1:
            estimates[:, indices] = predicted
        else:
            estimates[:, indices[0]] = predicted[:, 1]
    for i, o in enumerate(outcomes):
        if o["kind"] == "binary":
            estimates[:, i] = o["low"] + estimates[:, i] * (o["high"] - o["low"])
    return estimates


def over_splits(values):
    """Mean, standard error and 95% interval of Student's t over splits."""
    from scipy.stats import t
    n = len(values)
    centre = float(np.mean(values))
    if n < 2:
        return {"mean": centre}
    error = float(np.std(values, ddof=1) / math.sqrt(n))
    reach = float(t.ppf(0.975, n - 1)) * error
    return {"mean": centre, "se": error, "low": centre - reach, "high": centre + reach}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", required=True, help="folder that `qis eval --splits-out` wrote")
    parser.add_argument("--models", default=",".join(MODELS), help="which of " + ", ".join(MODELS))
    parser.add_argument("--json", help="write the figures here, too")
    options = parser.parse_args()
    wrong = [m for m in options.models.split(",") if m not in MODELS]
    if wrong:
        sys.exit(f"pooled.py: no model {wrong[0]}; there are {', '.join(MODELS)}")
    names = [n for n in os.listdir(options.splits) if re.fullmatch(r"split-\d+\.json", n)]
    if not names:
        sys.exit(f"pooled.py: {options.splits}: no split-SEED.json; `qis eval --splits-out` writes them")
    tables, by_method = {}, {}
    for name in sorted(names, key=lambda n: int(n[6:-5])):
        with open(os.path.join(options.splits, name), encoding="utf-8") as file:
            split = json.load(file)
        for path in set(split["tables"].values()):
            if path not in tables:
                tables[path] = records(path, split["source"])
        for method, rows in split["predictions"].items():
            estimates = np.array([[math.nan if e is None else e for e in row] for row in rows], dtype=float)
            by_method.setdefault(method, []).append(measures(split["outcomes"], estimates))
        for model in options.models.split(","):
            by_method.setdefault(model, []).append(measures(split["outcomes"], predict(split, model, tables)))
            print(f"{name} {model}: {by_method[model][-1]}", file=sys.stderr)

    found = {"splits": len(names), "methods": {}, "differences": {}}
    kinds = [m for m in LARGER_IS_BETTER if all(m in s for per in by_method.values() for s in per)]
    for method, per in by_method.items():
        found["methods"][method] = {m: over_splits([s[m] for s in per]) for m in kinds}
    models = options.models.split(",")
    for m in kinds:
        sign = 1 if LARGER_IS_BETTER[m] else -1
        best = max(models, key=lambda model: sign * found["methods"][model][m]["mean"])
        if "swarm" in by_method:
            pairs = zip(by_method["swarm"], by_method[best])
            found["differences"][m] = {"best": best, **over_splits([a[m] - b[m] for a, b in pairs])}

    def cell(value, key):
        spread = f" ± {value['se']:.4f}" if "se" in value else ""
        return f"{value['mean']:.4f}{spread}" if key != "rmse" else f"{value['mean']:.3f}{spread}"

    print("\t".join(["method", *kinds]))
    for method in by_method:
        print("\t".join([method, *(cell(found["methods"][method][m], m) for m in kinds)]))
    for m, d in found["differences"].items():
        interval = f" [{d['low']:+.4f}, {d['high']:+.4f}]" if "low" in d else ""
        print(f"swarm - {d['best']}, {m}: {d['mean']:+.4f}{interval}")
    if options.json:
        partial = options.json + ".partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
            file.write("\n")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
