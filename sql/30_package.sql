-- The Python package, inside a function: loaded once a session, no file but this script.

CREATE FUNCTION audius_challenges.load()
RETURNS void
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $package$
DIGEST = '@PACKAGE_DIGEST@'

if GD.get('audius_challenges') == DIGEST:
    return

import importlib.abc
import importlib.machinery
import sys

SOURCES = @PACKAGE_SOURCES@


class PackageFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the package from the sources above; tracebacks show their lines."""

    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        if self.path_of(name) is None:
            return None
        return importlib.machinery.ModuleSpec(
            name, self, origin=self.path_of(name), is_package=self.is_package(name)
        )

    def path_of(self, name):
        path = name.replace('.', '/')
        return next((each for each in (path + '.py', path + '/__init__.py') if each in self.sources), None)

    def is_package(self, name):
        return self.path_of(name).endswith('/__init__.py')

    def get_source(self, name):
        return self.sources[self.path_of(name)]

    def get_code(self, name):
        return self.source_to_code(self.get_source(name), self.path_of(name))


for name in [name for name in sys.modules if name.split('.')[0] == 'audius_challenges']:
    del sys.modules[name]
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != 'PackageFinder']
sys.meta_path.append(PackageFinder(SOURCES))
GD['audius_challenges'] = DIGEST
$package$;

COMMENT ON FUNCTION audius_challenges.load() IS
'Makes the extension''s Python package importable in this session, in the version of this database; '
'called by the other functions';
