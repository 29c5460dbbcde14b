from dreamlake.cli import main

main()
