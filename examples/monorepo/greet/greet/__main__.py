from greet import main

main()
