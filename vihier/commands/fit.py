"""`vihier fit`: a screen goes in, a posterior file comes out."""

from __future__ import annotations

import typer

from vihier.commands import fit_options as options
from vihier.commands.arguments import Columns, OnConflict, Priors, ScreenPath, SingleLineage, labels, pairs, read

NOT_CONVERGED = 3


def fit(
    screen: ScreenPath,
    out: options.Out,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    model: options.Model = "additive",
    guide: options.Guide = "structured",
    prior: Priors = None,
    genes: options.Genes = None,
    lines: options.Lines = None,
    lineages: options.Lineages = None,
    n_genes: options.NGenes = None,
    n_lineages: options.NLineages = None,
    where: options.Where = None,
    subset_seed: options.SubsetSeed = 0,
    draws: options.Draws = 1000,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch: options.Batch = "genes",
    batch_size: options.BatchSize = None,
    init: options.Init = None,
    max_steps: options.MaxSteps = None,
    quiet: options.Quiet = False,
    force: options.Force = False,
    strict: options.Strict = False,
) -> None:
    """Fit a model to a screen and write its posterior.

    xarray, ArviZ and any HDF5 reader open the file. A fit that is there already is opened, not repeated; one of
    another screen, model or configuration is refused without --force.

    [b]Examples[/b]

    vihier fit screen.parquet --out fit.h5
    vihier fit screen.parquet --out skin.h5 --lineages skin,eye --where screen=broad
    vihier fit screen.csv --out fit.h5 --model gene_lineage --prior 'mu_mu_mu_gamma=Normal(3,1)'
    """
    priors = pairs(prior, "--prior", "'mu_gamma=Normal(0,2)'")
    wanted_genes, wanted_lines = labels(genes, "--genes"), labels(lines, "--lines")
    wanted_lineages = labels(lineages, "--lineages")
    import vihier
    from vihier.models.program import load_program
    from vihier.screen.subset import parse_where

    conditions = parse_where(where or ())
    load_program(model, priors)  # refuses what it does not know before a large table is read for nothing
    table = read(screen, column, single_lineage, on_conflict)
    if any((wanted_genes, wanted_lines, wanted_lineages, n_genes is not None, n_lineages is not None, conditions)):
        table = table.subset(
            genes=wanted_genes,
            lines=wanted_lines,
            lineages=wanted_lineages,
            n_genes=n_genes,
            n_lineages=n_lineages,
            where=conditions,
            seed=subset_seed,
        )
    if not quiet:
        typer.echo("\n".join(table.report.lines()), err=True)
    posterior = vihier.fit(
        table,
        model,
        guide=guide,
        draws=draws,
        seed=seed,
        device=device,
        dtype=dtype,
        out=out,
        priors=priors or None,
        batch=batch,
        batch_size=batch_size,
        init=init,
        max_steps=max_steps,
        quiet=quiet,
        force=force,
    )
    if not posterior.converged:
        typer.echo(f"vihier: {out}: did not converge: {posterior.reason}", err=True)
        if strict:
            raise typer.Exit(NOT_CONVERGED)
    typer.echo(out)
