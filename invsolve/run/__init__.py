"""The run behind `invsolve run`: settings in, a directory of samples and measured numbers out.

    settings   what was asked, as tables: run.toml      inputs     the image files, a directory for each
    problem    one measurement, as a file               measure    from an image file to a problem
    parts      from names in tables to objects          prepare    an image, its units, what of them is done
    units      what is computed, in chunks              shards     what was computed, as files
    compute    one unit, in whatever process            executor   where the units run
    outputs    posterior.h5, pictures, metrics.json     record     that a run is finished, and of what
    drive      all of it, in order                      screen     what is said meanwhile
    presets    the settings of papers, by name          words      what is said at the end
    tile       the setting of that name                 estimate   the noise of a photo: --sigma-y auto
    foreign    a look at an operator of others          events     what a unit says while it runs
    pictures   samples, mean and std as PNG             tables     summary.csv and failures.csv
    free       a run without operator and INPUT         conditional    its samples and their files
    unconditional    samples of a prior alone

A finished run is recognised from its files alone: what that takes imports neither torch nor deepinv.
"""
